//! No form of the secret comes back, wherever the upstream puts it, and the answer stays what it was.

mod everywhere;
mod large;
mod stream;
mod withheld;
