"""One tree of tests for the engine, the control plane and the worker."""
