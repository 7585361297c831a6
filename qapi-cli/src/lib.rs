//! The program qapi: check, explain, introspect, query and generate from QAPI schemas.
