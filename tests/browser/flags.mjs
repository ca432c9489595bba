// Command-line flags of browsers, for tests and measurements.

export function needed(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; start this with \`cargo xtask\``);
  return value;
}

export const ALWAYS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export const SOFTWARE = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

// A GPU without a display; f16 where the driver supports it.
export const HARDWARE = [
  "--enable-unsafe-webgpu",
  "--enable-features=Vulkan",
  "--use-angle=vulkan",
  "--ignore-gpu-blocklist",
  "--disable-vulkan-surface",
  "--enable-dawn-features=vulkan_enable_f16_on_nvidia",
];
