//! One operation a file; joins the floors below.

pub mod query;
