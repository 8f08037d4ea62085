"""From the tags of an encoder (FLV's, which RTMP carries) to what a browser's Media Source Extensions take.

Sources: FLV and F4V 10.1 (Adobe 2010, annex E), Enhanced RTMP v1, ISO/IEC 14496-12 (boxes), 14496-15 (H.264 and H.265
in them), 14496-3 and -14 (AAC), and W3C's byte stream format for ISO BMFF.

- `bits`: a reader of bits, for parameter sets;
- `flv`: what a tag's body holds;
- `h264`, `h265`, `aac`: what a decoder must know, read from the encoder's own configuration;
- `tracks`: the tracks and what they are, `boxes`: the same as bytes;
- `clock`: one timeline out of timestamps that wrap, jump and run backwards;
- `muxer`: tags in, segments out.
"""

from qiyu.protocol.fmp4.muxer import Fragment, InitSegment, Muxer, Segment, Unsupported

__all__ = ["Fragment", "InitSegment", "Muxer", "Segment", "Unsupported"]
