//! placeholder of the next step
