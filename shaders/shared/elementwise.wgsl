// One thread per element: the flat index of this thread's element.
fn element_index(group: vec3<u32>, groups: vec3<u32>, thread: u32) -> u32 {
    return workgroup_index(group, groups) * WORKGROUP_SIZE + thread;
}
