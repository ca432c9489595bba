// cubecl 0.11 panics on an adapter without `timestamp-query`, although only profiling uses it and nothing
// here profiles. This reports the feature as present, and does not request it where it is missing.
const FEATURE = "timestamp-query";

if (self.GPUAdapter) {
  const prototype = GPUAdapter.prototype;
  const features = Object.getOwnPropertyDescriptor(prototype, "features").get;
  const requestDevice = prototype.requestDevice;

  Object.defineProperty(prototype, "features", {
    configurable: true,
    enumerable: true,
    get() {
      return new Set([...features.call(this), FEATURE]);
    },
  });
  prototype.requestDevice = function (descriptor = {}) {
    const real = features.call(this);
    const requiredFeatures = [...(descriptor.requiredFeatures ?? [])].filter(
      (feature) => feature !== FEATURE || real.has(FEATURE),
    );
    return requestDevice.call(this, { ...descriptor, requiredFeatures });
  };
}
