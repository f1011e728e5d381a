// Feeds x.hex with idle cycles, takes results with back-pressure, and compares every bit with y.hex.
`timescale 1ns / 1ns
module mx_linear_tb;
  parameter ROWS = 16;
  parameter BLOCKS = 4;
  parameter VECTORS = 16;
  localparam BEATS = VECTORS * BLOCKS;
  localparam RESULTS = VECTORS * ROWS;
  localparam PATIENCE = 1000;  // cycles without a result

  reg [511:0] xs [0:BEATS-1];
  reg [31:0] ys [0:RESULTS-1];
  initial begin
    $readmemh("x.hex", xs);
    $readmemh("y.hex", ys);
  end

  reg clk = 0;
  reg rst = 1;
  reg [511:0] x_payload;
  reg x_valid = 0;
  reg y_ready = 0;
  wire x_ready, y_valid;
  wire [31:0] y_payload;
  mx_linear #(.ROWS(ROWS), .BLOCKS(BLOCKS)) dut (
    .clk(clk),
    .rst(rst),
    .x_payload(x_payload),
    .x_valid(x_valid),
    .x_ready(x_ready),
    .y_payload(y_payload),
    .y_valid(y_valid),
    .y_ready(y_ready)
  );

  always #5 clk = ~clk;

  integer random = 1;
  integer cycles = 0;
  integer offered = 0;
  integer got = 0;
  integer mismatches = 0;
  integer idle = 0;

  always @(posedge clk) begin
    cycles <= cycles + 1;
    rst <= cycles < 2;
    y_ready <= ($random(random) & 3) != 0;
    // What is offered stays until it is taken.
    if (!rst && (!x_valid || x_ready)) begin
      x_valid <= 0;
      if (offered < BEATS && ($random(random) & 3) != 0) begin
        x_valid <= 1;
        x_payload <= xs[offered];
        offered <= offered + 1;
      end
    end
  end

  always @(posedge clk) begin
    idle <= idle + 1;
    if (!rst && y_valid && y_ready) begin
      if (y_payload !== ys[got]) begin
        mismatches = mismatches + 1;
        $display("vector %0d, row %0d: %h, expected %h", got / ROWS, got % ROWS, y_payload, ys[got]);
      end
      got = got + 1;
      idle <= 0;
    end
    if (got == RESULTS || idle == PATIENCE) begin
      $display("%0s: %0d of %0d results (%0d vectors of %0d values, %0d rows), %0d mismatches",
               got == RESULTS && mismatches == 0 ? "PASS" : "FAIL", got, RESULTS, VECTORS, 32 * BLOCKS, ROWS, mismatches);
      $finish;
    end
  end
endmodule
