"""The whole pipeline on this machine: embedded servers, live load, a verdict. Needs `statecast[embedded]`."""
