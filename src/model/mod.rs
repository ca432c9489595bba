//! The networks, one file or folder each, and their sizes.
//!
//! A network is a tree of structs whose constructors take a [`Loader`](crate::nn::Loader) narrowed
//! to their place in the checkpoint, so field names and tensor names agree. Sizes come from a
//! config struct with the field names of the checkpoint. Forward passes are written in tensor
//! operations, serve training and inference, and run on every device; where a kernel of our own exists they call
//! [`gpu`](crate::gpu), which picks the kernel or its reference.

pub mod adapter;
pub mod chatrex;
pub mod class_projector;
pub mod clip_vit;
pub mod config;
pub mod convnext;
pub mod decoder;
pub mod deformable;
pub mod dense_predictions;
pub mod nanodet;
pub mod presets;
pub mod projector;
pub mod roi_encoder;
pub mod swin;
pub mod upn;
