"""The systems that are measured, one a module: `make(dsn)` gives it. Each uses its documented public interface alone."""
