"""One module for each kind of source, each with an object ``ADAPTER`` (:class:`graphcut.sources.adapter.Adapter`)."""
