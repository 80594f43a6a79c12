//! Files to plain structs: the one place that reads YAML and environment variables.
