//! Incremental upload of a tensor.
//!
//! On a GPU each piece is written straight into the tensor's buffer, so the whole tensor is never in CPU
//! memory. Large tensors have dedicated buffers, which the driver gets back when the tensor is dropped.

use burn::backend::{Cube, DispatchDevice};
use burn::tensor::{Bytes, DType, Device, Int, Shape, Tensor, TensorData};
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::Client;
use cubecl::server::Handle;

/// Bytes from which a tensor has a dedicated buffer.
const DEDICATED_BUFFER: usize = 1 << 20;

/// A tensor of 32-bit elements that is filled from its start.
pub struct Upload {
    bytes: usize,
    target: Target,
}

enum Target {
    Gpu(Buffer),
    Cpu { device: Device, words: Vec<u32> },
}

/// A GPU buffer, filled up to byte `at`.
struct Buffer {
    handle: Handle,
    client: Client,
    device: CubeDevice,
    at: usize,
}

impl Buffer {
    fn tensor(self, elements: usize, dtype: DType) -> CubeTensor {
        let shape = Shape::from([elements]);
        CubeTensor::new_contiguous(self.client, self.device, shape, self.handle, dtype)
    }
}

impl Upload {
    /// An upload of `elements` elements to `device`.
    ///
    /// # Panics
    /// The device cannot bind a buffer of that size.
    pub fn new(elements: usize, device: &Device) -> Self {
        let bytes = 4 * elements;
        let target = match device.as_dispatch() {
            DispatchDevice::Cube(device) => {
                let client = device.client();
                let limit = client.properties().memory.max_page_size;
                assert!(
                    bytes as u64 <= limit,
                    "upload: {bytes} bytes, the device binds {limit}"
                );
                let handle = if bytes < DEDICATED_BUFFER {
                    client.empty(bytes)
                } else {
                    client.memory_dedicated_allocation((), |()| client.empty(bytes))
                };
                Target::Gpu(Buffer {
                    handle,
                    client,
                    device: device.clone(),
                    at: 0,
                })
            }
            _ => Target::Cpu {
                device: device.clone(),
                words: Vec::with_capacity(elements),
            },
        };
        Self { bytes, target }
    }

    /// Appends elements.
    ///
    /// # Panics
    /// The tensor has fewer elements.
    pub fn push(&mut self, elements: Vec<u32>) {
        match &mut self.target {
            Target::Gpu(buffer) => {
                let end = buffer.at + 4 * elements.len();
                assert!(
                    end <= self.bytes,
                    "upload: {end} bytes into a tensor of {}",
                    self.bytes
                );
                if !elements.is_empty() {
                    let part = buffer
                        .handle
                        .clone()
                        .offset_start(buffer.at as u64)
                        .offset_end((self.bytes - end) as u64);
                    buffer.client.write(&part, Bytes::from_elems(elements));
                }
                buffer.at = end;
            }
            Target::Cpu { words, .. } => {
                words.extend(elements);
                assert!(4 * words.len() <= self.bytes, "upload: too many elements");
            }
        }
    }

    /// The tensor, with elements as f32.
    ///
    /// # Panics
    /// Elements are missing.
    pub fn floats(self) -> Tensor<1> {
        let elements = self.bytes / 4;
        match self.complete() {
            Target::Gpu(buffer) => {
                Tensor::from_primitive::<Cube>(buffer.tensor(elements, DType::F32))
            }
            Target::Cpu { device, words } => {
                let values: Vec<f32> = words.into_iter().map(f32::from_bits).collect();
                Tensor::from_data(TensorData::new(values, [elements]), &device)
            }
        }
    }

    /// The tensor, with elements as i32.
    ///
    /// # Panics
    /// Elements are missing.
    pub fn integers(self) -> Tensor<1, Int> {
        let elements = self.bytes / 4;
        match self.complete() {
            Target::Gpu(buffer) => {
                Tensor::from_primitive::<Cube>(buffer.tensor(elements, DType::I32))
            }
            Target::Cpu { device, words } => {
                let values: Vec<i32> = words.into_iter().map(u32::cast_signed).collect();
                Tensor::from_data(TensorData::new(values, [elements]), &device)
            }
        }
    }

    fn complete(self) -> Target {
        let filled = match &self.target {
            Target::Gpu(buffer) => buffer.at,
            Target::Cpu { words, .. } => 4 * words.len(),
        };
        assert_eq!(filled, self.bytes, "upload: bytes of the tensor");
        self.target
    }
}
