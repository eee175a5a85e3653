"""What early stop saves and whom it ends wrongly, on curves of runs that all finished."""
