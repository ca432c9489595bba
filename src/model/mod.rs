//! The networks, one file each; every file reads like the paper it comes from.
//!
//! A network is a tree of structs whose constructors take a [`Loader`](crate::nn::Loader) narrowed
//! to their place in the checkpoint, so field names and tensor names agree. Sizes come from a
//! config struct with the checkpoint's own field names. Forward passes are written in tensor
//! operations and run on every device; the few spots with a kernel of our own ask
//! [`gpu`](crate::gpu), which picks the kernel or its reference.

pub mod chatrex;
pub mod clip_vit;
pub mod convnext;
pub mod decoder;
pub mod deformable;
pub mod projector;
pub mod roi_encoder;
pub mod swin;
pub mod upn;
