from goldens import arrays, assert_close, assert_gradients, load, small_published_model


def test_equals_the_original():
    golden = arrays("mcib")
    model = small_published_model()
    load(model, golden, prefix="MCIB.")
    frame, event = golden["in/rgb"].requires_grad_(), golden["in/event"].requires_grad_()

    trace = model.fusion.trace(frame, event)
    assert_close(trace.frame, golden["mid/proj_rgb"])
    assert_close(trace.event, golden["mid/proj_event"])
    assert_close(trace.frame_asks, golden["mid/event_attn"])
    assert_close(trace.event_asks, golden["mid/rgb_attn"])
    assert_close(trace.gate, golden["mid/gate"])

    out = model.fusion(frame, event)
    assert_close(out, golden["out"])
    (out * golden["gradout"]).sum().backward()
    assert_close(frame.grad, golden["grad/in_rgb"])
    assert_close(event.grad, golden["grad/in_event"])
    assert_gradients(model, golden, prefix="MCIB.")
