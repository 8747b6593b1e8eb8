//! Conversion between the versions of a kind whose versions differ in more than their name.

pub mod autoscaler;
