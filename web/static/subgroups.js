// wgpu does not request the WebGPU feature `subgroups`. This requests it where the adapter supports it, and
// calls `onDevice` with whether a device has it. Smaller subgroups save too few barriers, and are slower
// on software adapters. `onAdapter` gets the JSON of `chatrex::hardware::Hardware`, which wgpu knows only
// in part.
const MIN_SIZE = 8;

export function askForSubgroups(onDevice, onAdapter) {
  const prototype = self.GPUAdapter?.prototype;
  if (!prototype) return;
  const requestDevice = prototype.requestDevice;
  prototype.requestDevice = async function (descriptor = {}) {
    const wanted = new Set(descriptor.requiredFeatures ?? []);
    const size = this.info?.subgroupMinSize ?? 0;
    if (this.features.has("subgroups") && size >= MIN_SIZE) wanted.add("subgroups");
    const device = await requestDevice.call(this, { ...descriptor, requiredFeatures: [...wanted] });
    onAdapter?.(JSON.stringify(facts(this, device.limits)));
    onDevice(device.features.has("subgroups"));
    return device;
  };
}

function facts(adapter, limits) {
  const info = adapter.info ?? {};
  const names = [info.device, info.description].filter(Boolean);
  return {
    vendor: info.vendor ?? "",
    architecture: info.architecture ?? "",
    description: names.join(" "),
    backend: "WebGPU",
    f16: adapter.features.has("shader-f16"),
    fallback: Boolean(info.isFallbackAdapter ?? adapter.isFallbackAdapter),
    limits: {
      buffer: limits.maxBufferSize,
      binding: limits.maxStorageBufferBindingSize,
      workgroup_storage: limits.maxComputeWorkgroupStorageSize,
      workgroup_size: limits.maxComputeInvocationsPerWorkgroup,
      workgroups: limits.maxComputeWorkgroupsPerDimension,
      storage_buffers: limits.maxStorageBuffersPerShaderStage,
    },
  };
}
