//! Carrying out a plan so that a stop leaves the old state or the new one.
