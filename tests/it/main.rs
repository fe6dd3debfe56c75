//! The test binary. Each module is a file beside this one, with a line on what it covers.
