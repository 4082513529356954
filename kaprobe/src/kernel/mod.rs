//! Loads the BPF programs, attaches them, and decodes what they send. Only this module uses
//! aya.

mod attach;
mod bpf;
mod btf;
mod calibrate;
mod capabilities;
mod clock;
mod config;
mod counters;
mod decode;
mod descriptors;
mod iterator;
mod kfunc;
mod loader;
mod look;
mod mapping;
mod members;
mod missed;
mod object;
mod owner_hooks;
mod owner_watch;
mod programs;
mod refusal;
mod registers;
mod ring;
mod self_test;
mod seq_file;
mod socket_table;
mod switches;
mod testbed;
mod tracer;
pub mod types;
mod unanswered;

pub use crate::kernel::attach::Attached;
pub use crate::kernel::btf::PATH as BTF_PATH;
pub use crate::kernel::capabilities::{AttachProbe, Capabilities};
pub use crate::kernel::clock::{now, read_namespace};
pub use crate::kernel::config::TracerConfig;
pub use crate::kernel::decode::{DecodeError, Decoder};
pub use crate::kernel::descriptors::DescriptorIterator;
pub use crate::kernel::iterator::SocketIterator;
pub use crate::kernel::look::StallLook;
pub use crate::kernel::owner_hooks::OwnerHooks;
pub use crate::kernel::owner_watch::{OwnerNews, OwnerWatch};
pub use crate::kernel::tracer::{Arrival, Tracer};
