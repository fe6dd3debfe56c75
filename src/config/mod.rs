//! Where everything is: options, files and environment, resolved once.
