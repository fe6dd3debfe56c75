//! The command line of ibex.

fn main() {}
