//! The driver: from a model file to an artifact.
