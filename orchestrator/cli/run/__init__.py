"""Commands that run the system on this machine, and the doctor that checks the machine."""
