// Feeds x.hex with idle cycles, takes results with back-pressure, and compares every bit with y.hex.
module mx_roundtrip_tb;
  localparam int BLOCKS = 2000;
  // From the transfer of x to y first valid: both units' latencies.
  localparam int LATENCY = mx_quantizer_pkg::LATENCY + mx_dequantizer_pkg::LATENCY;

  mx_quantizer_pkg::i_t xs[BLOCKS];
  mx_dequantizer_pkg::o_t ys[BLOCKS];
  initial begin
    $readmemh("x.hex", xs);
    $readmemh("y.hex", ys);
  end

  logic clk = 0;
  logic rst = 1;
  mx_quantizer_pkg::i_t x_payload;
  logic x_valid = 0;
  logic x_ready;
  mx_dequantizer_pkg::o_t y_payload;
  logic y_valid;
  logic y_ready = 0;
  mx_roundtrip dut (.*);

  always #5 clk = ~clk;

  int cycle = 0;
  int offered = 0;
  int got = 0;
  int mismatches = 0;
  int started = -1;
  int latency = -1;

  always_ff @(posedge clk) begin
    cycle <= cycle + 1;
    rst <= cycle < 2;
    y_ready <= $urandom_range(3) != 0;
    // What is offered stays until it is taken.
    if (!rst && (!x_valid || x_ready)) begin
      x_valid <= 0;
      if (offered < BLOCKS && $urandom_range(3) != 0) begin
        x_valid <= 1;
        x_payload <= xs[offered];
        offered <= offered + 1;
      end
    end
  end

  always @(posedge clk) begin
    if (started < 0 && x_valid && x_ready) started = cycle;
    if (latency < 0 && y_valid) latency = cycle - started;
    if (!rst && y_valid && y_ready) begin
      for (int k = 0; k < 32; k++) begin
        if (y_payload.values[k] !== ys[got].values[k]) begin
          mismatches++;
          $display("block %0d, value %0d: %h, expected %h", got, k, y_payload.values[k], ys[got].values[k]);
        end
      end
      got++;
    end
    if (got == BLOCKS || cycle == 10 * BLOCKS) begin
      if (got == BLOCKS && mismatches == 0 && latency == LATENCY) begin
        $display("PASS: %0d blocks, %0d values, 0 mismatches, latency %0d as declared", got, 32 * got, latency);
        $finish;
      end
      else
        $fatal(1, "FAIL: %0d of %0d blocks, %0d mismatches, latency %0d, declared %0d", got, BLOCKS, mismatches, latency, LATENCY);
    end
  end
endmodule
