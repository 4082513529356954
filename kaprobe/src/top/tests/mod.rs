//! Tests of what `top` keeps, of its keys, and of what it draws.

mod bounds;
mod keys;
mod made;
mod screens;
