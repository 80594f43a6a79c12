//! Listener, strict request head, routes, SSE and problem documents.
