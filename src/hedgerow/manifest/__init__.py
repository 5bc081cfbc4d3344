"""The release manifest: what a release is, for whom, made from what, and how it was checked.

A release on disk is a folder with ``manifest.json`` and ``blobs/<sha256>``. In the TUF repository the manifest is the
target ``<name>/<number>/manifest.json`` and each blob is ``<name>/<number>/<sha256>``.
"""
