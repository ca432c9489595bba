// wgpu does not request the WebGPU feature `subgroups`. This requests it where the adapter supports it, and
// calls `onDevice` with whether a device has it. Smaller subgroups save too few barriers, and are slower
// on software adapters.
const MIN_SIZE = 8;

export function askForSubgroups(onDevice) {
  const prototype = self.GPUAdapter?.prototype;
  if (!prototype) return;
  const requestDevice = prototype.requestDevice;
  prototype.requestDevice = async function (descriptor = {}) {
    const wanted = new Set(descriptor.requiredFeatures ?? []);
    const size = this.info?.subgroupMinSize ?? 0;
    if (this.features.has("subgroups") && size >= MIN_SIZE) wanted.add("subgroups");
    const device = await requestDevice.call(this, { ...descriptor, requiredFeatures: [...wanted] });
    onDevice(device.features.has("subgroups"));
    return device;
  };
}
