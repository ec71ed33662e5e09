//! What a map looks like from outside, and the macro that makes padding a compile error.

/// The outside of one map: what user space checks before it adopts a pinned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The map's name in the object and in the kernel (at most 15 characters).
    pub name: &'static str,
    /// Raised whenever key, value or their meaning changes. Part of the pin's file name: `frontends4_v1`.
    pub version: u32,
    /// Bytes of a key; 0 where the map type has none.
    pub key_size: u32,
    /// Bytes of a value (of one CPU, in per-CPU maps); 0 where the map type has none.
    pub value_size: u32,
    /// Entries unless the operator chose otherwise (bytes for a ring buffer, 0 for socket storage).
    pub entries_default: u32,
}

impl Layout {
    /// The layout of a map from `K` to `V`.
    #[must_use]
    pub const fn of<K, V>(name: &'static str, version: u32, entries_default: u32) -> Self {
        Self { name, version, key_size: size_of::<K>() as u32, value_size: size_of::<V>() as u32, entries_default }
    }

    /// The layout of a longest-prefix-match map whose keys are `K` behind a 32-bit prefix length.
    #[must_use]
    pub const fn prefixes_of<K, V>(name: &'static str, version: u32, entries_default: u32) -> Self {
        let mut layout = Self::of::<K, V>(name, version, entries_default);
        layout.key_size += size_of::<u32>() as u32;
        layout
    }
}

/// Defines a struct shared with the kernel: `repr(C)`, no padding, size pinned, readable by aya in user space.
///
/// `size = N` for a plain struct, `sizes = N4, N6` for one that is generic over the address `A`.
macro_rules! abi_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+ }
        size = $size:literal
    ) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)+ }

        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())+, "padding in an ABI struct");
        const _: () = assert!(size_of::<$name>() == $size, "an ABI struct changed its size");

        // SAFETY: repr(C), only plain integers, and no padding (asserted above).
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident<A> { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+ }
        sizes = $size4:literal, $size6:literal
    ) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name<A> { $($(#[$field_meta])* pub $field: $type,)+ }

        const _: () = {
            const fn fields<A>() -> usize {
                0 $(+ size_of::<$type>())+
            }
            assert!(size_of::<$name<$crate::Ip4>>() == fields::<$crate::Ip4>(), "padding in an ABI struct");
            assert!(size_of::<$name<$crate::Ip6>>() == fields::<$crate::Ip6>(), "padding in an ABI struct");
            assert!(size_of::<$name<$crate::Ip4>>() == $size4, "an ABI struct changed its size");
            assert!(size_of::<$name<$crate::Ip6>>() == $size6, "an ABI struct changed its size");
        };

        // SAFETY: repr(C), only plain integers, and no padding: asserted above for both addresses that there are.
        #[cfg(feature = "user")]
        unsafe impl<A: $crate::Address + aya::Pod> aya::Pod for $name<A> {}
    };
}
pub(crate) use abi_struct;
