//! Files of the state directory that are not what we wrote.
