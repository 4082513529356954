//! Everything that speaks to the kernel through BPF: the only module that uses aya.

mod attach;
mod bpf;
mod btf;
mod cast;
mod clock;
mod counters;
mod decode;
mod descriptors;
mod iterator;
mod learn;
mod loader;
mod mapping;
mod missed;
mod ring;
mod survey;
mod tracer;

pub use self::{
    attach::Attached,
    btf::PATH as BTF_PATH,
    clock::now,
    decode::{DecodeError, Decoder},
    descriptors::DescriptorIterator,
    iterator::SocketIterator,
    survey::{Survey, Tried, survey},
    tracer::{Stop, Tracer, Wanted},
};
