//! A directory tree nobody can climb out of.
