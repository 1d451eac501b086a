"""Whether a converted model is right: its blobs against those of another engine, on inputs drawn at random."""

from caffeconv.verify.check import BlobCheck, Tolerance, Verification, deviations, verify

__all__ = ["BlobCheck", "Tolerance", "Verification", "deviations", "verify"]
