"""A stand-in of the zeus package: what llem calls of it, over AMD GPUs of a scenario."""
