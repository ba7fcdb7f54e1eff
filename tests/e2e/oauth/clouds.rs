//! Clouds and GitHub.
