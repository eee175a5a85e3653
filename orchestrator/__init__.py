"""The orchestrator: experiments, their queue and the GPU pool behind one HTTP service."""
