"""dllama on AArch64 processors, emulated: `make test-arm64`. Nothing here runs in `make test` but
what needs no emulator."""
