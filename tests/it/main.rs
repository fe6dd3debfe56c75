//! The test binary. Each module is a file beside this one, with a line on what it covers.

mod support;

mod solver_cases; // apk's solver cases and version data, on the solver alone
