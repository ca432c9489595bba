//! Weights on their way to a device, a piece at a time.
//!
//! On a graphics device a piece goes from this program's memory straight into the tensor's buffer;
//! the tensor as a whole never exists here. Large tensors get buffers of their own, which the
//! driver has back as soon as the tensor is dropped.

use burn::backend::{Cube, DispatchDevice};
use burn::tensor::{Bytes, DType, Device, Int, Shape, Tensor, TensorData};
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::Client;
use cubecl::server::Handle;

/// Tensors from this size on have a buffer of their own.
const OWN_BUFFER: usize = 1 << 20;

/// A tensor of 32-bit elements that is being filled from its beginning.
pub struct Upload {
    bytes: usize,
    place: Place,
}

enum Place {
    Graphics(Buffer),
    Host { device: Device, words: Vec<u32> },
}

/// A buffer of a graphics device, filled up to `at` bytes.
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
    /// Room for `elements` elements on `device`.
    ///
    /// # Panics
    /// The device cannot bind a buffer of that size.
    pub fn new(elements: usize, device: &Device) -> Self {
        let bytes = 4 * elements;
        let place = match device.as_dispatch() {
            DispatchDevice::Cube(device) => {
                let client = device.client();
                let limit = client.properties().memory.max_page_size;
                assert!(
                    bytes as u64 <= limit,
                    "a weight takes {bytes} bytes, the device binds {limit}"
                );
                let handle = if bytes < OWN_BUFFER {
                    client.empty(bytes)
                } else {
                    client.memory_dedicated_allocation((), |()| client.empty(bytes))
                };
                Place::Graphics(Buffer {
                    handle,
                    client,
                    device: device.clone(),
                    at: 0,
                })
            }
            _ => Place::Host {
                device: device.clone(),
                words: Vec::with_capacity(elements),
            },
        };
        Self { bytes, place }
    }

    /// Fills the next elements.
    ///
    /// # Panics
    /// There is no room for them.
    pub fn push(&mut self, elements: Vec<u32>) {
        match &mut self.place {
            Place::Graphics(buffer) => {
                let end = buffer.at + 4 * elements.len();
                assert!(
                    end <= self.bytes,
                    "{end} bytes in a tensor of {}",
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
            Place::Host { words, .. } => {
                words.extend(elements);
                assert!(4 * words.len() <= self.bytes, "too many elements");
            }
        }
    }

    /// The tensor, its elements read as f32.
    ///
    /// # Panics
    /// It is not full.
    pub fn floats(self) -> Tensor<1> {
        let elements = self.bytes / 4;
        match self.full() {
            Place::Graphics(place) => {
                Tensor::from_primitive::<Cube>(place.tensor(elements, DType::F32))
            }
            Place::Host { device, words } => {
                let values: Vec<f32> = words.into_iter().map(f32::from_bits).collect();
                Tensor::from_data(TensorData::new(values, [elements]), &device)
            }
        }
    }

    /// The tensor, its elements read as i32.
    ///
    /// # Panics
    /// It is not full.
    pub fn integers(self) -> Tensor<1, Int> {
        let elements = self.bytes / 4;
        match self.full() {
            Place::Graphics(place) => {
                Tensor::from_primitive::<Cube>(place.tensor(elements, DType::I32))
            }
            Place::Host { device, words } => {
                let values: Vec<i32> = words.into_iter().map(u32::cast_signed).collect();
                Tensor::from_data(TensorData::new(values, [elements]), &device)
            }
        }
    }

    fn full(self) -> Place {
        let filled = match &self.place {
            Place::Graphics(buffer) => buffer.at,
            Place::Host { words, .. } => 4 * words.len(),
        };
        assert_eq!(filled, self.bytes, "bytes of a complete tensor");
        self.place
    }
}
