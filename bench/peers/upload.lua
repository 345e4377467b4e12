-- What wrk sends in the bench `http` to /upload: the same 10 kB every time.
wrk.method = "POST"
wrk.body = string.rep("x", 10000)
