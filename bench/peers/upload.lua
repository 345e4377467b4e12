-- What wrk sends in the bench `http` to /upload and /whole: the same 10 kB every time.
wrk.method = "POST"
wrk.body = string.rep("x", 10000)
