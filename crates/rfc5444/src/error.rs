//! What can be wrong, and where.

use core::fmt;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Where, in bytes from the start of the packet (or of the message, if that alone was parsed).
    pub offset: usize,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The bytes end before the element does.
    Truncated,
    /// The packet's version is not 0.
    Version(u8),
    /// `<msg-size>` is smaller than the message's own header or larger than what is left.
    MessageSize(u16),
    /// An address block with no addresses.
    NoAddresses,
    /// Head and tail are longer than an address.
    AddressLength,
    /// A prefix length over the address' width.
    PrefixLength(u8),
    /// Address flags that exclude each other.
    AddressFlags(u8),
    /// TLV flags that exclude each other, or index flags outside an address block.
    TlvFlags(u8),
    /// A TLV whose index range is empty or beyond the last address.
    TlvIndex(u8),
    /// A multivalue TLV whose length is no multiple of its number of values.
    TlvMultivalue(u16),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::Truncated => f.write_str("the bytes end too early"),
            ErrorKind::Version(v) => write!(f, "packet version {v}, not 0"),
            ErrorKind::MessageSize(n) => write!(f, "message size {n} does not fit"),
            ErrorKind::NoAddresses => f.write_str("an address block without addresses"),
            ErrorKind::AddressLength => f.write_str("head and tail longer than an address"),
            ErrorKind::PrefixLength(n) => write!(f, "prefix length {n} over the address' width"),
            ErrorKind::AddressFlags(b) => write!(f, "contradicting address flags {b:#04x}"),
            ErrorKind::TlvFlags(b) => write!(f, "contradicting TLV flags {b:#04x}"),
            ErrorKind::TlvIndex(i) => write!(f, "TLV index {i} out of range"),
            ErrorKind::TlvMultivalue(n) => write!(f, "{n} bytes do not divide among a TLV's values"),
        }?;
        write!(f, " (at byte {})", self.offset)
    }
}

impl core::error::Error for Error {}

/// Why a value can't be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitError {
    /// A message over 65,535 bytes.
    MessageTooLong(usize),
    /// A TLV block or TLV value over 65,535 bytes.
    TlvTooLong(usize),
    /// An address block with no or with over 255 addresses.
    AddressCount(usize),
    /// An address of another length than the message's.
    AddressLength(u8),
    /// A TLV's index range is empty or beyond the last address, or its values do not divide.
    TlvIndex(u8),
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MessageTooLong(n) => write!(f, "a message holds at most 65535 bytes, this one {n}"),
            Self::TlvTooLong(n) => write!(f, "TLVs hold at most 65535 bytes, these {n}"),
            Self::AddressCount(n) => write!(f, "an address block holds 1 to 255 addresses, this one {n}"),
            Self::AddressLength(n) => write!(f, "an address of {n} octets among those of another length"),
            Self::TlvIndex(i) => write!(f, "TLV index {i} out of range"),
        }
    }
}

impl core::error::Error for EmitError {}
