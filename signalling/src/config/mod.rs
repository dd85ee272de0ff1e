//! Reading HOCON files.
