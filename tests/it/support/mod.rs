//! What several test files share.

pub(crate) mod solver_run;
