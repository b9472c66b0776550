//! The same world over TCP, for other programs.
