"""Services that run the queue: submit, claim, finish, steer, audit, back up."""
