// wgpu asks no browser for subgroups. Devices are made with them where the adapter has them, and
// `told` hears whether a device has. Subgroups of fewer invocations save no barriers worth the name;
// on software they cost.
const LEAST = 8;

export function askForSubgroups(told) {
  const prototype = self.GPUAdapter?.prototype;
  if (!prototype) return;
  const requestDevice = prototype.requestDevice;
  prototype.requestDevice = async function (descriptor = {}) {
    const wanted = new Set(descriptor.requiredFeatures ?? []);
    const size = this.info?.subgroupMinSize ?? 0;
    if (this.features.has("subgroups") && size >= LEAST) wanted.add("subgroups");
    const device = await requestDevice.call(this, { ...descriptor, requiredFeatures: [...wanted] });
    told(device.features.has("subgroups"));
    return device;
  };
}
