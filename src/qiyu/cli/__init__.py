"""The commands of `qiyu`, one file each."""
