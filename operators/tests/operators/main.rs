//! Every operator alone, driven by the test kit; windows against a slow reference.
#![allow(clippy::unwrap_used)]

mod keyed;
mod stateless;
mod windows;
